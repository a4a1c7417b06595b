package pgtest

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
)

// Reach says by which address a server is reached besides loopback; the zero value
// is none. From there TLS is a must, beside the password.
type Reach struct {
	Address          string // IP address of this machine, such as that of a bridge
	Certificate, Key string // PEM files of the server's certificate
}

// At is where the server is reached by the address of its [Reach], or by a name
// that stands for it, as HOST:PORT.
func (s *Server) At(host string) string { return net.JoinHostPort(host, strconv.Itoa(s.port)) }

// initializeReach gives the certificate to who runs the server, and lets clients in
// that come from elsewhere with TLS.
func (s *Server) initializeReach() error {
	if s.reach.Address == "" {
		return nil
	}
	for name, path := range map[string]string{"server.crt": s.reach.Certificate, "server.key": s.reach.Key} {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		path = filepath.Join(s.Dir, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			return err
		}
		if err := s.programs.own(path); err != nil {
			return err
		}
	}
	rules, err := os.OpenFile(filepath.Join(s.data(), "pg_hba.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(rules, "hostssl all all all scram-sha-256")
	if closeErr := rules.Close(); err == nil {
		err = closeErr
	}
	return err
}

// reachSettings are the server's arguments that say where it listens.
func (s *Server) reachSettings() []string {
	if s.reach.Address == "" {
		return []string{"-c", "listen_addresses=127.0.0.1"}
	}
	return []string{"-c", "listen_addresses=127.0.0.1," + s.reach.Address, "-c", "ssl=on",
		"-c", "ssl_cert_file=" + filepath.Join(s.Dir, "server.crt"), "-c", "ssl_key_file=" + filepath.Join(s.Dir, "server.key")}
}
