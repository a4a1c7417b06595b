// Package lambdahost runs a function's bootstrap as AWS Lambda does, on one
// machine: instances start with the first invocation, take one invocation at a
// time from the Runtime API (2018-06-01), are frozen between two of them, killed when they
// run out of time, and end after a while without work. Callers reach the function by
// the Invoke API (2015-03-31), by a function URL and by queues, each by an alias.
//
// A host is for one function without layers and extensions; IAM is not checked.
//
//	h, err := lambdahost.New(lambdahost.Config{Name: "sluice-identity", Aliases: []string{"live"}, Program: "task/bootstrap", Timeout: 15 * time.Second})
//	defer h.Close()
//	http.Serve(listener, lambdahost.API(h)) // the Invoke API
package lambdahost
