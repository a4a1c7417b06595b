// Package iot holds the words of the platform: tenants, devices, credentials
// and the message a device sends, together with the sentinel errors that every
// other package decides on. It knows no protocol, no store and no transport.
package iot
