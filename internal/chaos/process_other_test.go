//go:build !linux

package chaos_test

import "syscall"

func dieWithTests() *syscall.SysProcAttr { return nil }
