//go:build unix

package listentest

import (
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// locks are the files that say which ports this process was given; they are
// never closed, so that the locks end with the process.
var locks []*os.File

// reserve takes a port for this process; false where another one has it. Where no
// file can be locked every port may be had.
func reserve(port int) bool {
	dir := filepath.Join(os.TempDir(), "sluice-test-ports")
	if os.MkdirAll(dir, 0o777) != nil {
		return true
	}
	f, err := os.OpenFile(filepath.Join(dir, strconv.Itoa(port)), os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		return true
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return false
	}
	locks = append(locks, f)
	return true
}
