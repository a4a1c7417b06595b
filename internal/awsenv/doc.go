// Package awsenv finds what a process that AWS runs was given in its
// environment: credentials and the region. Nothing is read from files of a home folder.
//
//	sqs.New(sqs.Options{Credentials: awsenv.Credentials(), Region: region})
package awsenv
