// Package aws tests the deployment on AWS as far as it goes without an account:
// that the template is one, that the archive is the same each time it is made, and
// the whole as localstack/stack starts it on this machine.
//
// It needs what localstack/deps installs. Without it the tests skip with the
// reason, or fail when SLUICE_TEST_ALL=1.
package aws
