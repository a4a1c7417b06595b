// Package stack starts the deployment of infra/aws/template.yaml on one machine:
// the functions' own bootstrap on package lambdahost, the tables in DynamoDB Local, the
// queues and the schedules in LocalStack, and a router and an HTTP adapter as
// processes that reach the functions by the Invoke API. What is made, and how the functions
// are configured, is read from the template.
//
// A rule of LocalStack cannot invoke a function that LocalStack does not run. So the target of a
// schedule is a queue of its own here, which the host empties into the function.
package stack
