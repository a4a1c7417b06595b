// Package lambda hosts functions on AWS Lambda. One handler tells apart by the
// payload what it was invoked with (contract: events, section 5):
//
//   - a structured CloudEvent, by direct Invoke: answered by the reply's or by io.sluice.error;
//   - an HTTP request by a function URL or API Gateway: given to the endpoint of package host;
//   - messages of an SQS queue, whose bodies are structured CloudEvents: the failed ones are named;
//   - an event of EventBridge with a structured CloudEvent as detail, or of a schedule.
//
// Who may call: a direct invocation is authorised by IAM before it comes here,
// and may ask what the configured kinds of components may; HTTP callers prove
// themselves by a bearer token or by the IAM identity that Lambda verified. The
// payload alone tells what delivered it, and whoever may invoke the function
// directly can make any payload: what only some may deliver must have an alias
// of its own, see [Accept].
//
//	h, err := lambda.New(lambda.Config{Endpoint: endpoint, Log: log})
//	awslambda.StartWithOptions(h)
package lambda
