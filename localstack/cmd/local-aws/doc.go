// Command local-aws starts the deployment of infra/aws on this machine and says
// how to send a first message. It ends with Ctrl-C, and everything with it.
//
//	local-aws [-data FOLDER] [-idle 5m] [-device 127.0.0.1:8080] ...
package main
