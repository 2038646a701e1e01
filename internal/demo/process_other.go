//go:build !linux

package main

import (
	"syscall"
	"time"
)

func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// usage is what a process has used; unknown here.
type usage struct {
	cpu            time.Duration
	peak, resident uint64
}

func usageOf(int) usage { return usage{} }
