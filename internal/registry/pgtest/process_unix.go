//go:build unix

package pgtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

// owner is the user that the server runs as; nil = this process's.
type owner *syscall.Credential

func runAs() (owner, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("nobody")
	if err != nil {
		return nil, fmt.Errorf("PostgreSQL does not run as root: %w", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// own gives files to who runs the server.
func (p programs) own(paths ...string) error {
	if p.owner == nil {
		return nil
	}
	for _, path := range paths {
		if err := os.Chown(path, int(p.owner.Uid), int(p.owner.Gid)); err != nil {
			return err
		}
	}
	return nil
}

// command runs a program in a process group of its own, so that a Ctrl-C in
// the terminal reaches the test and not the server that it is going to stop.
func (p programs) command(path string, args ...string) *exec.Cmd {
	cmd := exec.Command(path, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: p.owner}
	withParent(cmd.SysProcAttr)
	return cmd
}

// process is a server that was begun.
type process struct {
	pid  int
	done chan struct{} // closed when it has ended; then err is set
	err  error
}

// begin starts cmd from a thread that lives as long as it does: the kernel
// takes the end of the thread for the end of the parent.
func begin(cmd *exec.Cmd) (*process, error) {
	p := &process{done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		if err == nil {
			p.pid = cmd.Process.Pid
		}
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(p.done)
		}
	}()
	return p, <-started
}

// interrupt asks for a fast shutdown and waits for it.
func (p *process) interrupt() error {
	syscall.Kill(p.pid, syscall.SIGINT) // fails only where it has ended, which is seen next
	select {
	case <-p.done:
		return p.err
	case <-time.After(time.Minute):
		p.kill()
		return errors.New("it did not end within a minute and was killed")
	}
}

func (p *process) kill() {
	syscall.Kill(p.pid, syscall.SIGKILL)
	<-p.done
}
