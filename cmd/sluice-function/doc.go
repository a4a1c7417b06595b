// Command sluice-function serves any subset of the identity functions and the
// management API, and nothing else: no adapter, no router. It finds out by
// itself where it runs. On AWS Lambda (AWS_LAMBDA_RUNTIME_API is set) it asks
// for invocations. On Knative and other platforms that set PORT it answers there
// in plain text, because TLS ends at the platform, and components prove
// themselves by bearer tokens. Otherwise it opens the listeners of the
// configuration, where components prove themselves by client certificates.
//
//	sluice-function --functions admission,registration,assertion --config /etc/sluice/sluice.yaml
//	sluice-function health    # for containers without a shell: exit code 0 when ready
package main
