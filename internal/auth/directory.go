package auth

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Options say how a directory is read.
type Options struct {
	// AllowPlain admits {plain} secrets in identities.yaml. In permissions.json they
	// are always admitted, because that format has no other.
	AllowPlain bool
	Logger     *slog.Logger // nil = discard
	// OnReload is called after the file was read anew, for callers that hold
	// identities. It must not block.
	OnReload func()
}

// Directory is the identities file in force. Safe for concurrent use.
type Directory struct {
	path    string
	options Options
	gates   [2]*gate // for cheap secrets, and for costly ones
	guesses *guesses
	current atomic.Pointer[snapshot]

	mu   sync.Mutex // one reload at a time
	last fileState

	subscribers sync.Map // *func() -> nothing
}

// fileState tells one version of the file from another.
type fileState struct {
	modified time.Time
	size     int64
	info     os.FileInfo
}

func (s fileState) same(o fileState) bool {
	return s.info != nil && o.info != nil && s.modified.Equal(o.modified) && s.size == o.size && os.SameFile(s.info, o.info)
}

// Open reads the file at path. Its error names file, line and entry.
func Open(path string, o Options) (*Directory, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	d := &Directory{path: path, options: o, gates: [2]*gate{newGate(), newGate()}, guesses: newGuesses()}
	if _, err := d.Reload(); err != nil {
		return nil, err
	}
	return d, nil
}

// Path is the file that the directory is read from.
func (d *Directory) Path() string { return d.path }

// Reload reads the file if it changed and reports whether it did. On an error the
// directory stays as it was.
func (d *Directory) Reload() (changed bool, err error) {
	changed, err = d.reload()
	if !changed {
		return changed, err
	}
	if d.options.OnReload != nil {
		d.options.OnReload()
	}
	d.subscribers.Range(func(f, _ any) bool {
		(*f.(*func()))()
		return true
	})
	return changed, err
}

// Subscribe has f called after each time that the file was read anew, until stop is
// called. f must not block.
func (d *Directory) Subscribe(f func()) (stop func()) {
	d.subscribers.Store(&f, nil)
	return func() { d.subscribers.Delete(&f) }
}

// Version grows each time that the file is read anew: whoever decided something by
// an identity can tell by it whether to look again.
func (d *Directory) Version() uint64 { return d.current.Load().version }

func (d *Directory) reload() (bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	state, err := stat(d.path)
	if err != nil {
		return false, err
	}
	if state.same(d.last) {
		return false, nil
	}
	data, err := os.ReadFile(d.path)
	if err != nil {
		return false, fmt.Errorf("identities: %w", err)
	}
	d.last = state // what is wrong with this version is said once
	next, err := parse(d.path, data, d.options.AllowPlain)
	if err != nil {
		return false, err
	}
	for _, w := range next.warnings {
		d.options.Logger.Warn("identities", "file", d.path, "warning", w)
	}
	old := d.current.Load()
	if old != nil {
		next.keep(old)
	}
	d.current.Store(next)
	return old != nil, nil
}

func stat(path string) (fileState, error) {
	info, err := os.Stat(path)
	if err != nil {
		return fileState{}, fmt.Errorf("identities: %w", err)
	}
	return fileState{modified: info.ModTime(), size: info.Size(), info: info}, nil
}

// Watch reads the file whenever it changed, looking every interval, until ctx ends.
// A file that cannot be read is logged once and the last good one stays in force.
func (d *Directory) Watch(ctx context.Context, interval time.Duration) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	said := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		switch changed, err := d.Reload(); {
		case err != nil && err.Error() != said:
			said = err.Error()
			d.options.Logger.Error("identities are not reloaded; the last good ones stay in force", "file", d.path, "err", err)
		case changed:
			said = ""
			d.options.Logger.Info("identities reloaded", "file", d.path)
		}
	}
}

// Current returns the identity by that name as it is now, or nil if it is gone.
// It is the same pointer as before unless its entry changed. Components are not in
// the directory; see also [Directory.Refresh].
func (d *Directory) Current(name string) *Identity {
	if e := d.current.Load().entries[name]; e != nil {
		return e.identity
	}
	return nil
}
