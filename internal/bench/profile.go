package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"time"
)

// profile fetches profiles of a process while it works.
type profile struct {
	lasting time.Duration
	path    string
	running sync.WaitGroup
	err     error
}

// take begins to fetch. A process that ends meanwhile leaves no profile.
func (p *profile) take(ctx context.Context, address string) {
	if p == nil {
		return
	}
	p.running.Go(func() {
		p.err = p.fetch(ctx, fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", address, int(max(1, p.lasting.Seconds()))), p.path+".cpu")
		if p.err == nil {
			p.err = p.fetch(ctx, "http://"+address+"/debug/pprof/allocs", p.path+".allocs")
		}
	})
}

// wait waits until it is done.
func (p *profile) wait() error {
	if p == nil {
		return nil
	}
	p.running.Wait()
	return p.err
}

func (*profile) fetch(ctx context.Context, from, to string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, from, http.NoBody)
	if err != nil {
		return fmt.Errorf("ask for a profile: %w", err)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return fmt.Errorf("ask for a profile: %w", err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil {
		err = os.WriteFile(to, text, 0o600)
	}
	if err != nil {
		return fmt.Errorf("keep the profile: %w", err)
	}
	return nil
}
