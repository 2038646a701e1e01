package pgtest

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
)

// template is an initialised data folder that servers of one major version are copied from: copying takes a
// tenth of the time that initdb takes.
type template struct {
	once sync.Once
	dir  string
	err  error
}

var templates = struct {
	sync.Mutex
	byMajor map[int]*template
}{byMajor: map[int]*template{}}

// prepareData fills an empty data folder for a server of the given major.
// A folder that already holds a cluster is taken as it is.
func (s *Server) prepareData(ctx context.Context) error {
	if _, err := os.Stat(filepath.Join(s.dataDir, "PG_VERSION")); err == nil {
		return s.configure()
	}
	source, err := s.template(ctx)
	if err != nil {
		return err
	}
	if err := copyTree(s.account, source, s.dataDir); err != nil {
		return fmt.Errorf("copy the initialised data folder: %w", err)
	}
	return s.configure()
}

func (s *Server) template(ctx context.Context) (string, error) {
	templates.Lock()
	cached := templates.byMajor[s.major]
	if cached == nil {
		cached = &template{}
		templates.byMajor[s.major] = cached
	}
	templates.Unlock()
	cached.once.Do(func() {
		root, err := tempRoot()
		if err != nil {
			cached.err = err
			return
		}
		cached.dir = filepath.Join(root, fmt.Sprintf("template-%d", s.major))
		cached.err = s.initdb(context.WithoutCancel(ctx), cached.dir)
	})
	return cached.dir, cached.err
}

func (s *Server) initdb(ctx context.Context, dir string) error {
	if err := makeDir(s.account, dir); err != nil {
		return err
	}
	password := filepath.Join(filepath.Dir(dir), filepath.Base(dir)+".password")
	if err := os.WriteFile(password, []byte(processPassword()), 0o600); err != nil {
		return fmt.Errorf("write the password file for initdb: %w", err)
	}
	defer func() { _ = os.Remove(password) }() // It also goes with the folder around it.
	if err := s.account.own(password); err != nil {
		return fmt.Errorf("hand the password file to the server's user: %w", err)
	}
	cmd := exec.CommandContext(ctx, filepath.Join(s.binDir, "initdb"), "--pgdata="+dir, "--username="+superuser,
		"--auth=scram-sha-256", "--pwfile="+password, "--encoding=UTF8", "--locale=C", "--no-sync")
	cmd.Dir = "/" // The server's user need not be able to enter the caller's folder.
	cmd.Env = serverEnv()
	// Only a thread that lives as long as the child may start it with a parent-death signal.
	out, err := onLockedThread(func() ([]byte, error) {
		cmd.SysProcAttr = s.account.attributes()
		return cmd.CombinedOutput()
	})
	if err != nil {
		return fmt.Errorf("run initdb of PostgreSQL %d: %w\n%s", s.major, err, out)
	}
	return nil
}

// makeDir makes a data folder that PostgreSQL accepts: private and owned by the server's user.
func makeDir(owner account, dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the data folder: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return fmt.Errorf("make the data folder private: %w", err)
	}
	if err := owner.own(dir); err != nil {
		return fmt.Errorf("hand the data folder to the server's user: %w", err)
	}
	return nil
}

func copyTree(owner account, from, to string) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, relative)
		if entry.IsDir() {
			return makeDir(owner, target)
		}
		if err := copyFile(path, target); err != nil {
			return err
		}
		return owner.own(target)
	})
}

func copyFile(from, to string) (err error) {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = source.Close() }() // Only read from.
	target, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if _, err := io.Copy(target, source); err != nil {
		_ = target.Close() // The copy's error says more.
		return err
	}
	return target.Close()
}
