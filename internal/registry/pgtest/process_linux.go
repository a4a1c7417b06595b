package pgtest

import "syscall"

// withParent has the kernel end the server when this process goes away without
// stopping it: after a panic, a time limit or SIGKILL. SIGQUIT is an immediate end.
func withParent(a *syscall.SysProcAttr) { a.Pdeathsig = syscall.SIGQUIT }
