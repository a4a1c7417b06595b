//go:build !linux

package dynamotest

import "syscall"

func withParent() *syscall.SysProcAttr { return nil }
