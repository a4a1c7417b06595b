// Package readme runs README.md and the pages below docs as a reader would.
//
// Each page gets a folder of its own with bin/sluice, built by the Makefile from
// a copy of the source; README.md is run in that copy itself. The default ports
// are replaced by free ones in every block before it is used. What a fenced block
// is says its info string:
//
//	sh              runs to its end and succeeds
//	sh fails        runs to its end and fails
//	sh stays        runs on in a terminal of its own; its last command is what stays
//	text            what the block above printed: every line has to begin some line
//	                of the output, in this order; ... stands for anything
//	text elsewhere  the same of a program that stays
//	LANG file=NAME  is saved as NAME
//
// Lines of a text block that begin with curl or bin/sluice are pasted as they were
// printed: bin/sluice stays, curl runs to its end.
//
// A program that stays is interrupted, as by Ctrl-C, at the end of its section,
// or of the page when it was started before the first section. A section that
// needs something besides Go that is not installed is skipped with the reason;
// those for Python and Node, and those that name a database, run with
// SLUICE_TEST_ALL=1 only, as `make test-all` sets it, and then a missing one is a
// failure. So do containers, with a Docker engine that is there, and what stands for
// AWS: LocalStack for the command line, and the local deployment. What names kubectl runs where
// SLUICE_TEST_KUBERNETES says what the names of the page are: make test-kubernetes does
// that on its node. The last block of a section that removes what is left there,
// docker rm or kubectl delete namespace, also runs when the section failed.
//
// A database that is named by its usual port, 5432 for PostgreSQL and 8000
// for DynamoDB Local, is a server that was started for the section.
package readme
