// Package listentest finds ports for servers that tests start as processes of
// their own, which cannot be asked which port they got. Within a process a test
// listens on port 0 instead.
//
//	port, err := listentest.FreePort()
package listentest
