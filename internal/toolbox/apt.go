package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// aptInstall installs Debian packages, or says what the user has to do.
func aptInstall(ctx context.Context, why string, packages ...string) error {
	list := strings.Join(packages, " ")
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("%s: install it with this system's package manager (on Debian: apt-get install %s)", why, list)
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("%s: only root can install it here; run \"apt-get install %s\" as root", why, list)
	}
	if err := quietly(ctx, "apt-get update", apt(ctx, "update")); err != nil {
		return err
	}
	args := append([]string{"install", "--yes", "--no-install-recommends"}, packages...)
	return quietly(ctx, "apt-get install "+list, apt(ctx, args...))
}

func apt(ctx context.Context, args ...string) *exec.Cmd {
	cmd := command(ctx, "apt-get", append([]string{"--quiet"}, args...)...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	return cmd
}

type gccCommand struct{}

// Run makes sure of the C compiler that cgo will call.
func (gccCommand) Run(ctx context.Context) error {
	out, err := command(ctx, "go", "env", "CC").Output()
	if err != nil {
		return fmt.Errorf("ask go for its C compiler: %w", err)
	}
	// CC may carry flags after the name.
	compiler := strings.Fields(string(out))
	if len(compiler) > 0 {
		if _, err := exec.LookPath(compiler[0]); err == nil {
			return nil
		}
	}
	return aptInstall(ctx, "the race detector needs a C compiler", "gcc", "libc6-dev")
}
