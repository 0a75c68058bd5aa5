package main

import (
	"context"
	"os"
	"path/filepath"
	"sync"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

type config struct {
	Directory string `mapstructure:"directory"`
}

// file is one open file; each line is written by one write, so that a reader never sees half of one
// followed by another.
type file struct {
	lock sync.Mutex
	path string
	open *os.File
}

func newFile(settings component.Config, name string) *file {
	return &file{path: filepath.Join(settings.(*config).Directory, name+".jsonl")}
}

func (f *file) Start(context.Context, component.Host) (err error) {
	f.open, err = os.OpenFile(f.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	return err
}

func (f *file) Shutdown(context.Context) error {
	if f.open == nil {
		return nil
	}
	return f.open.Close()
}

func (f *file) Capabilities() consumer.Capabilities { return consumer.Capabilities{} }

func (f *file) write(line []byte, err error) error {
	if err != nil {
		return err
	}
	f.lock.Lock()
	defer f.lock.Unlock()
	_, err = f.open.Write(append(line, '\n'))
	return err
}

func (f *file) ConsumeTraces(_ context.Context, data ptrace.Traces) error {
	return f.write((&ptrace.JSONMarshaler{}).MarshalTraces(data))
}

func (f *file) ConsumeLogs(_ context.Context, data plog.Logs) error {
	return f.write((&plog.JSONMarshaler{}).MarshalLogs(data))
}

func (f *file) ConsumeMetrics(_ context.Context, data pmetric.Metrics) error {
	return f.write((&pmetric.JSONMarshaler{}).MarshalMetrics(data))
}

func newLines() exporter.Factory {
	return exporter.NewFactory(
		component.MustNewType("lines"),
		func() component.Config { return &config{Directory: "."} },
		exporter.WithTraces(func(_ context.Context, _ exporter.Settings, settings component.Config) (exporter.Traces, error) {
			return newFile(settings, "traces"), nil
		}, component.StabilityLevelStable),
		exporter.WithLogs(func(_ context.Context, _ exporter.Settings, settings component.Config) (exporter.Logs, error) {
			return newFile(settings, "logs"), nil
		}, component.StabilityLevelStable),
		exporter.WithMetrics(func(_ context.Context, _ exporter.Settings, settings component.Config) (exporter.Metrics, error) {
			return newFile(settings, "metrics"), nil
		}, component.StabilityLevelStable),
	)
}
