// Package listen opens the program's listeners and holds the certificates that
// protect them: files that are read again when they or their symlinks change, the
// development certificates of a data folder, and the certificates by which
// components prove themselves to each other (contract: configuration 3).
//
// It speaks no protocol and knows no identities; internal/auth makes one of a
// verified certificate.
//
//	dev, err := listen.OpenDevelopment(filepath.Join(data, "tls"), nil)
//	tlsConfig, err := listen.ServerTLS(dev.Files(), listen.ServerOptions{})
//	l, err := listen.Open(ctx, "northbound", "127.0.0.1:15671", tlsConfig)
package listen
