// Package dynamotest starts DynamoDB Local for tests: one server for a test
// binary, in memory, on a free port of the loopback. tests/deps fetches its jars
// into build/dynamodb-local, as pom.xml in this folder names them.
//
//	func TestMain(m *testing.M) { os.Exit(dynamotest.Run(m)) }
//
//	func TestStore(t *testing.T) {
//		endpoint := dynamotest.Endpoint(t) // skips where there is no server
//	}
package dynamotest
