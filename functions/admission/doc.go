// Package admission answers io.sluice.admission.admit: everything an adapter
// must know before it lets a device in, from one snapshot of the registry. The
// secret is verified here, so that hashes never reach an adapter (contract:
// events 4.1, adapters 1.5, 2 and 3).
package admission
