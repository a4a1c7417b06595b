package listen

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Development holds the certificates that a program makes for itself: an authority
// and a leaf for localhost, 127.0.0.1, ::1 and the host's name.
type Development struct {
	Authority *Authority
	files     Files
	hosts     []string
}

// LocalHosts are the names that every certificate of ours is good for.
func LocalHosts() []string { return []string{"localhost", "127.0.0.1", "::1"} }

// OpenDevelopment makes the authority and the leaf in dir at the first start, and
// renews the leaf when it ends within 30 days or lacks a name. extra are further
// host names.
func OpenDevelopment(dir string, extra []string) (*Development, error) {
	return openDevelopment(dir, extra, time.Now())
}

func openDevelopment(dir string, extra []string, now time.Time) (*Development, error) {
	a, err := OpenAuthority(dir, now)
	if err != nil {
		return nil, fmt.Errorf("development certificates: %w", err)
	}
	hosts := LocalHosts()
	if name, err := os.Hostname(); err == nil && name != "" {
		extra = append([]string{name}, extra...)
	}
	for _, h := range extra {
		if !slices.Contains(hosts, h) && validHost(h) {
			hosts = append(hosts, h)
		}
	}
	d := &Development{Authority: a, hosts: hosts, files: Files{
		Certificate: filepath.Join(dir, "server.crt"), Key: filepath.Join(dir, "server.key"), CA: a.CAFile(),
	}}
	if _, err := d.renew(now); err != nil {
		return nil, fmt.Errorf("development certificates: %w", err)
	}
	return d, nil
}

// validHost reports whether h can stand in a certificate; a machine's own name need
// not.
func validHost(h string) bool {
	for _, r := range h {
		if r != '-' && r != '.' && r != '_' && r != ':' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') {
			return false
		}
	}
	return h != "" && len(h) <= 253
}

// Files names the leaf, its key and the authority's certificate.
func (d *Development) Files() Files { return d.files }

// Maintain renews the leaf in good time, until ctx ends. Listeners made by
// [ServerTLS] notice the new file by themselves.
func (d *Development) Maintain(ctx context.Context, log *slog.Logger) {
	ticker := time.NewTicker(time.Hour)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			switch renewed, err := d.renew(now); {
			case err != nil:
				log.Error("development certificate is not renewed", "err", err)
			case renewed:
				log.Info("development certificate renewed", "file", d.files.Certificate)
			}
		}
	}
}

func (d *Development) renew(now time.Time) (bool, error) {
	pair, err := readPair(d.files)
	switch {
	case err == nil && d.good(pair.Leaf, now):
		return false, nil
	case err != nil && !errors.Is(err, fs.ErrNotExist) && !whole(d.files):
		return false, err
	}
	return true, d.Authority.Issue(d.files, Leaf{CommonName: "localhost", Hosts: d.hosts, Life: leafLife}, now)
}

// whole reports whether both files can be read, so that what is wrong is that they do
// not belong together, as a crash between writing one and the other leaves them.
func whole(f Files) bool {
	for _, p := range []string{f.Certificate, f.Key} {
		data, err := os.ReadFile(p)
		if err != nil || len(data) == 0 {
			return false
		}
	}
	return true
}

func (d *Development) good(leaf *x509.Certificate, now time.Time) bool {
	if now.Add(renewBefore).After(leaf.NotAfter) || now.Before(leaf.NotBefore) || leaf.CheckSignatureFrom(d.Authority.Certificate) != nil {
		return false
	}
	for _, h := range d.hosts {
		if leaf.VerifyHostname(h) != nil {
			return false
		}
	}
	return true
}
