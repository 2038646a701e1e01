package bustest

import "syscall"

// dieWithParent makes the kernel end a process whose test has died.
func dieWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
