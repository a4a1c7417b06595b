// Package images holds the tests of the container images: what is in them, and
// that they run where nothing is allowed that they do not need. `make images`
// makes them first.
package images
