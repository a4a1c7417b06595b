package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// defaultData is the data folder when none was named: ./data if search is set and
// it exists, else sluice below the XDG data folder.
func defaultData(env map[string]string, search bool) (string, error) {
	if search {
		if info, err := os.Stat("data"); err == nil && info.IsDir() {
			return "data", nil
		}
	}
	if dir := env["XDG_DATA_HOME"]; filepath.IsAbs(dir) {
		return filepath.Join(dir, "sluice"), nil
	}
	if home := env["HOME"]; home != "" {
		return filepath.Join(home, ".local", "share", "sluice"), nil
	}
	return "", errNoData
}

var errNoData = errors.New("no data folder: neither --data, SLUICE_DATA, XDG_DATA_HOME nor HOME is set")

// DataFolder is a data folder that this process holds the lock of.
type DataFolder struct {
	Path string
	lock *os.File
}

// OpenData creates the folder if need be, for its owner alone, and locks it. The
// error is one line: not writable, or in use by another process. The lock ends
// with Close, and with the process.
func OpenData(path string) (*DataFolder, error) {
	if path == "" {
		return nil, errNoData
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("data folder %s cannot be created: %w", path, cause(err))
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("data folder %s: %w", path, cause(err))
	}
	lock, err := lockFile(filepath.Join(path, "lock"))
	var held *heldError
	switch {
	case errors.As(err, &held):
		return nil, fmt.Errorf("data folder %s is in use by %w", path, held)
	case err != nil:
		return nil, fmt.Errorf("data folder %s is not writable: %w", path, cause(err))
	}
	if info.Mode().Perm()&0o077 != 0 {
		if err := os.Chmod(path, 0o700); err != nil {
			lock.Close()
			return nil, fmt.Errorf("data folder %s is open to others (mode %o) and cannot be closed to them: %w", path, info.Mode().Perm(), cause(err))
		}
	}
	return &DataFolder{Path: path, lock: lock}, nil
}

// File returns the path of a file in the folder.
func (d *DataFolder) File(elem ...string) string {
	return filepath.Join(append([]string{d.Path}, elem...)...)
}

// Close gives the folder back.
func (d *DataFolder) Close() error { return d.lock.Close() }

// heldError says that another process has the lock.
type heldError struct{ pid string }

func (e *heldError) Error() string {
	if e.pid == "" {
		return "another process"
	}
	return "process " + e.pid
}

// cause drops path and operation from a file error, where the text names them.
func cause(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
