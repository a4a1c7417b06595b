package dynamotest

import "syscall"

// withParent has the kernel end the server when this process goes away without
// stopping it: after a panic, a time limit or SIGKILL.
func withParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
