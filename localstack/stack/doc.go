// Package stack starts the deployment of infra/aws/template.yaml on one machine:
// the function's own bootstrap on package lambdahost, the table in DynamoDB Local, the
// queues and the schedule in LocalStack, and a router and an HTTP adapter as
// processes that reach the function by the Invoke API. What is made, and how the function
// is configured, is read from the template.
//
// LocalStack's rule cannot invoke a function that it does not run. So the target of the
// schedule is a queue of its own here, which the host empties into the function.
package stack
