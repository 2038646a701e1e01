package chaos_test

import "syscall"

// dieWithTests makes the kernel end the child when the tests die, however they die.
func dieWithTests() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
