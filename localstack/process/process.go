package process

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// Options says what is started. Name and Path are required.
type Options struct {
	Name   string // for errors
	Path   string
	Args   []string
	Env    []string // all of it
	Dir    string
	Output io.Writer // both streams; nil = nowhere. An *os.File costs no goroutine.
}

// Process is a program that was started.
type Process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{}
}

// Start starts a program, in a process group of its own so that an interrupt of
// the terminal reaches only the caller. Where the system can, it is killed when
// the caller goes away.
func Start(o Options) (*Process, error) {
	p := &Process{name: o.Name, cmd: exec.Command(o.Path, o.Args...), done: make(chan struct{})}
	p.cmd.Env, p.cmd.Dir, p.cmd.SysProcAttr = o.Env, o.Dir, attributes()
	if o.Output != nil {
		p.cmd.Stdout, p.cmd.Stderr = o.Output, o.Output
	}
	started := make(chan error)
	go p.own(started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("%s: %w", o.Name, err)
	}
	return p, nil
}

// own starts the process and waits for it on one thread: the kernel's signal on
// the parent's end comes when the thread ends that started it.
func (p *Process) own(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := p.cmd.Start()
	started <- err
	if err == nil {
		_ = p.cmd.Wait()
		close(p.done)
	}
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Exit says how the process ended; "" while it runs.
func (p *Process) Exit() string {
	select {
	case <-p.done:
		return fmt.Sprintf("%s ended: %s", p.name, p.cmd.ProcessState)
	default:
		return ""
	}
}

// PID is the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Stop ends the process by SIGTERM, after grace by SIGKILL, and waits for its end.
func (p *Process) Stop(grace time.Duration) {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		p.Kill()
	}
}

// Kill ends the process at once, where the system can also those that it started,
// and waits for its end.
func (p *Process) Kill() {
	if p.Exit() == "" {
		p.killGroup()
	}
	_ = p.cmd.Process.Signal(os.Kill)
	<-p.done
}
