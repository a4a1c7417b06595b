package listen

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"
)

// checkInterval is how often, at most, files are looked at.
const checkInterval = time.Second

// Files names the PEM files of one side of TLS.
type Files struct {
	Certificate string // leaf first, then intermediates
	Key         string
	CA          string // whom to believe; "" = nobody for servers, the system's for clients
}

// watched is a value read from files and read again when they change, when somebody
// asks for it and at most once in checkInterval. A version that cannot be read is
// logged once and the last good one stays.
type watched[T any] struct {
	paths []string
	read  func() (T, error)
	log   *slog.Logger

	mu      sync.Mutex
	value   T
	states  []os.FileInfo
	checked time.Time
	said    string
}

func newWatched[T any](log *slog.Logger, read func() (T, error), paths ...string) (*watched[T], error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	w := &watched[T]{paths: paths, read: read, log: log}
	states, err := stat(paths)
	if err != nil {
		return nil, err
	}
	if w.value, err = read(); err != nil {
		return nil, err
	}
	w.states, w.checked = states, time.Now()
	return w, nil
}

// get returns the value in force.
func (w *watched[T]) get() T {
	w.mu.Lock()
	defer w.mu.Unlock()
	if now := time.Now(); now.Sub(w.checked) >= checkInterval {
		w.checked = now
		w.refresh()
	}
	return w.value
}

func (w *watched[T]) refresh() {
	states, err := stat(w.paths)
	if err == nil {
		if same(states, w.states) {
			return
		}
		var next T
		if next, err = w.read(); err == nil {
			w.value, w.states, w.said = next, states, ""
			w.log.Info("certificate files reloaded", "file", w.paths[0])
			return
		}
	}
	if err.Error() != w.said {
		w.said = err.Error()
		w.log.Error("certificate files are not reloaded; the last good ones stay in force", "err", err)
	}
}

// stat follows symlinks, so that a link to another file counts as a change.
func stat(paths []string) ([]os.FileInfo, error) {
	out := make([]os.FileInfo, len(paths))
	for i, p := range paths {
		info, err := os.Stat(p)
		if err != nil {
			return nil, fileError(err)
		}
		out[i] = info
	}
	return out, nil
}

func same(a, b []os.FileInfo) bool {
	for i := range a {
		if !os.SameFile(a[i], b[i]) || !a[i].ModTime().Equal(b[i].ModTime()) || a[i].Size() != b[i].Size() {
			return false
		}
	}
	return true
}

func fileError(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return fmt.Errorf("%s: %w", p.Path, p.Err)
	}
	return err
}

// Leaf returns the certificate by which the holder of f proves itself.
func (f Files) Leaf() (*x509.Certificate, error) {
	pair, err := readPair(f)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(pair.Certificate[0])
}

func readPair(f Files) (*tls.Certificate, error) {
	cert, err := os.ReadFile(f.Certificate)
	if err != nil {
		return nil, fileError(err)
	}
	key, err := os.ReadFile(f.Key)
	if err != nil {
		return nil, fileError(err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("certificate %s with key %s: %w", f.Certificate, f.Key, err)
	}
	return &pair, nil
}

func readPool(path string) (*x509.CertPool, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fileError(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("%s: no certificate in PEM form", path)
	}
	return pool, nil
}
