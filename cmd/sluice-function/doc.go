// Command sluice-function serves any subset of the identity functions and the
// management API, and nothing else: no adapter, no router. It finds out by
// itself where it runs. On AWS Lambda (AWS_LAMBDA_RUNTIME_API is set) it asks
// for invocations. On Knative and other platforms that set PORT it answers there
// in plain text, because TLS ends at the platform, and components prove
// themselves by bearer tokens. Otherwise it opens the listeners of the
// configuration, where components prove themselves by client certificates.
//
// Besides the settings of the configuration (SLUICE_ and the path of the key) it
// reads from the environment:
//
//	SLUICE_SERVE          what --functions defaults to
//	SLUICE_KEK            key-encryption key, so that nothing is kept in a data folder
//	SLUICE_KEK_PREVIOUS   the one before it, whose signing keys still open
//	SLUICE_VERIFIED_KEY   key of the MACs of verified passwords, for the same reason
//	SLUICE_TLS_CERTIFICATE_PEM, SLUICE_TLS_KEY_PEM, SLUICE_TLS_CA_PEM
//	                      what the files of tls would hold, where secrets are variables
//	SLUICE_LAMBDA_ACCEPT  what Lambda may deliver, and by which alias of the function:
//	                      "direct,http" unless set, such as "direct:live,http:url,sqs,schedule:cron"
//	SLUICE_LAMBDA_DIRECT  the kinds of components that IAM lets invoke directly: "adapter,router" unless set
//	SLUICE_LAMBDA_ROLES   whose IAM roles may call by a function URL, such as
//	                      "adapter=arn:aws:iam::123456789012:role/sluice-adapter"
//
// It links every store; the build tags nosqlite, nopostgres and nodynamodb leave
// out what a deployment does not have, and lambda.norpc a protocol that no current
// runtime of Lambda speaks.
//
//	sluice-function --functions admission,registration,assertion --config /etc/sluice/sluice.yaml
//	sluice-function health    # for containers without a shell: exit code 0 when ready
package main
