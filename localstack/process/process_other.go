//go:build !linux

package process

import "syscall"

func attributes() *syscall.SysProcAttr { return nil }

// Freeze does nothing on this system.
func (p *Process) Freeze() {}

// Thaw does nothing on this system.
func (p *Process) Thaw() {}

func (p *Process) killGroup() {}
