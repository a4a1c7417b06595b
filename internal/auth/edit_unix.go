//go:build unix

package auth

import (
	"fmt"
	"os"
	"syscall"
)

// lockFolder makes writers of the folder's identities file take turns.
func lockFolder(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("identities: %w", err)
	}
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("identities: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("identities: lock %s: %w", dir, err)
	}
	return func() { f.Close() }, nil
}
