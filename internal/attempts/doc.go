// Package attempts bounds how often somebody may guess: failed attempts per
// name, per address, or whatever a caller counts by. It knows no protocol.
//
//	limit := attempts.New[netip.Addr](100, 10_000)
//	if err := limit.Begin(ctx, address); err != nil {
//		return err // wraps iot.ErrQuota, with the time to wait
//	}
//	err := verify()
//	limit.End(address, errors.Is(err, iot.ErrUnauthenticated))
package attempts
