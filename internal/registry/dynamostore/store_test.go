package dynamostore_test

import (
	"os"
	"testing"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"crypto/rand"

	"github.com/sluice-iot/sluice/internal/registry"
	"github.com/sluice-iot/sluice/internal/registry/dynamostore"
	"github.com/sluice-iot/sluice/internal/registry/dynamotest"
	"github.com/sluice-iot/sluice/internal/registry/storetest"
)

func TestMain(m *testing.M) { os.Exit(dynamotest.Run(m)) }

func options(t testing.TB, table string) dynamostore.Options {
	return dynamostore.Options{Table: table, Endpoint: dynamotest.Endpoint(t), Region: dynamotest.Region, Create: true,
		Credentials: credentials.NewStaticCredentialsProvider(dynamotest.AccessKey, dynamotest.SecretKey, "")}
}

func open(t testing.TB, o dynamostore.Options) *dynamostore.Store {
	t.Helper()
	s, err := dynamostore.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func newTable() string { return "t-" + rand.Text() }

var _ = dynamodb.Options{}

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) registry.Backend { return open(t, options(t, newTable())) })
}
