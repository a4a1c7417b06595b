// Package registration answers io.sluice.registration.assert: whether a device
// may act, by itself or through a gateway, with the signed assertion that
// vouches for it (contract: messaging 4, events 4.1).
package registration
