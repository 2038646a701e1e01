//go:build !linux

package main

import (
	"runtime"
	"syscall"
	"time"
)

func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

func cpuOf(int) time.Duration { return 0 }

func memoryOf(int) (resident, peak, shared uint64) { return 0, 0, 0 }

func machine() string { return runtime.GOOS + " " + runtime.GOARCH }

func busy() string { return "unknown" }
