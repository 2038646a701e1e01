package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/dbmazz/dbmazz/bus"
	"github.com/dbmazz/dbmazz/internal/config"
)

// withQueue opens the queue for a command that a person runs beside the pipeline, or
// while it is stopped, and closes it afterwards.
func withQueue(ctx context.Context, s *streams, parts config.Parts, use func(context.Context, *tool) error) error {
	c, _, err := load(s.environ, parts)
	if err != nil {
		return err
	}
	if c.Instance == "" {
		c.Instance = newInstance()
	}
	limitMemory(c.MemoryLimit)
	// What the command has to say it says itself; the log is for trouble.
	log := slog.New(slog.NewTextHandler(s.stderr, &slog.HandlerOptions{Level: max(c.LogLevel, slog.LevelWarn)}))
	b, err := openTool(ctx, c, log)
	if err != nil {
		return err
	}
	err = use(ctx, &tool{config: c, bus: b, log: log, out: s.stdout, err: s.stderr})
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	return errors.Join(err, b.Close(closing))
}

// tool is what such a command works with.
type tool struct {
	config   config.Config
	bus      *bus.Bus
	log      *slog.Logger
	out, err io.Writer
}

// openTool opens the queue where it is: at BUS_URL, in the process that has the folder
// open, or, when none has, in this process.
func openTool(ctx context.Context, c config.Config, log *slog.Logger) (*bus.Bus, error) {
	settings := busConfig(c, 0, log)
	if settings.Attach {
		if _, err := os.Stat(settings.DataDir); err != nil {
			return nil, fmt.Errorf("find the queue: %w; set BUS_DATA_DIR, or BUS_URL, as for the pipeline", err)
		}
		alone := settings
		alone.Attach = false
		b, err := openBus(ctx, alone)
		if _, used := errors.AsType[*bus.InUseError](err); !used {
			return b, err
		}
	}
	return openBus(ctx, settings)
}

func openBus(ctx context.Context, settings bus.Config) (*bus.Bus, error) {
	b, err := bus.New(settings)
	if err != nil {
		return nil, fmt.Errorf("set up the queue: %w", err)
	}
	if err := b.Open(ctx); err != nil {
		return nil, fmt.Errorf("open the queue: %w", err)
	}
	return b, nil
}
