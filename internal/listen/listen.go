package listen

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"syscall"
)

// Open listens on a TCP address for the given role, with TLS if config is not nil.
// Its error is one line with role and address.
func Open(ctx context.Context, role, address string, config *tls.Config) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listener %s on %s: %w", role, address, explain(err))
	}
	if config != nil {
		return tls.NewListener(l, config), nil
	}
	return l, nil
}

// explain says what the usual errors mean and keeps the others.
func explain(err error) error {
	var dns *net.DNSError
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("the address is in use by another process: %w", syscall.EADDRINUSE)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("this machine does not have the address: %w", syscall.EADDRNOTAVAIL)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("not permitted; ports below 1024 need a privilege: %w", syscall.EACCES)
	case errors.As(err, &dns):
		return fmt.Errorf("unknown host %q: %w", dns.Name, err)
	}
	return err
}
