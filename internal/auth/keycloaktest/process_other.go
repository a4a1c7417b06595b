//go:build !linux

package keycloaktest

import "syscall"

func attributes() *syscall.SysProcAttr { return nil }
