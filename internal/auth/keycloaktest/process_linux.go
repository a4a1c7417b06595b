package keycloaktest

import "syscall"

// attributes puts the server into a process group of its own, and has the kernel
// end it when this process goes away without stopping it.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
