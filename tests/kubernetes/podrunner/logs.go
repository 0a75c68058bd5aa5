package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// longestLine bounds a line of a log; a longer one is kept in parts.
const longestLine = 64 << 10

// output keeps what a container writes, each line behind the time that it came at.
type output struct {
	mu   sync.Mutex
	file *os.File
	rest []byte
}

func openOutput(path string) (*output, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	return &output{file: file}, nil
}

// Write takes what came, in pieces of any size.
func (o *output) Write(piece []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.rest = append(o.rest, piece...)
	for {
		end := bytes.IndexByte(o.rest, '\n')
		if end < 0 && len(o.rest) < longestLine {
			return len(piece), nil
		}
		if end < 0 || end > longestLine {
			end = longestLine - 1
		}
		if err := o.keep(o.rest[:end]); err != nil {
			return 0, err
		}
		o.rest = bytes.TrimPrefix(o.rest[end:], []byte("\n"))
	}
}

func (o *output) keep(line []byte) error {
	_, err := fmt.Fprintf(o.file, "%s %s\n", time.Now().UTC().Format(time.RFC3339Nano), line)
	return err
}

func (o *output) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.rest) > 0 {
		_ = o.keep(o.rest)
	}
	_ = o.file.Close()
}

func logPath(state, namespace, pod, container string) string {
	return filepath.Join(state, "logs", fmt.Sprintf("%s_%s_%s.log", namespace, pod, container))
}

// serveLogs answers what the API server asks a kubelet for `kubectl logs`, at a port of its own
// choice, which is returned. The certificate is anyone's: the API server of a test trusts all.
func serveLogs(at netip.Addr, state string) (int32, error) {
	listener, err := net.Listen("tcp", netip.AddrPortFrom(at, 0).String())
	if err != nil {
		return 0, fmt.Errorf("listening for the API server: %w", err)
	}
	routes := http.NewServeMux()
	routes.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}",
		func(answer http.ResponseWriter, request *http.Request) {
			part := func(name string) string { return filepath.Base(request.PathValue(name)) }
			path := logPath(state, part("namespace"), part("pod"), part("container"))
			if err := writeLog(answer, path, request); err != nil {
				http.Error(answer, err.Error(), http.StatusBadRequest)
			}
		})
	server := httptest.NewUnstartedServer(routes)
	_ = server.Listener.Close()
	server.Listener = listener
	server.StartTLS()
	return int32(listener.Addr().(*net.TCPAddr).Port), nil
}

// followEvery is how often a followed log is looked at.
const followEvery = 100 * time.Millisecond

// writeLog writes the lines that the query asks for (sinceTime, sinceSeconds, tailLines, follow).
func writeLog(to http.ResponseWriter, path string, request *http.Request) error {
	query := request.URL.Query()
	if query.Get("previous") == "true" {
		return fmt.Errorf("podrunner does not know `previous`")
	}
	stamped := query.Get("timestamps") == "true"
	since, err := time.Parse(time.RFC3339, query.Get("sinceTime"))
	if text := query.Get("sinceTime"); text != "" && err != nil {
		return fmt.Errorf("sinceTime: %w", err)
	}
	if seconds, err := strconv.Atoi(query.Get("sinceSeconds")); err == nil {
		since = time.Now().Add(-time.Duration(seconds) * time.Second)
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	var found []string
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 2*longestLine)
	for lines.Scan() {
		at, text, _ := strings.Cut(lines.Text(), " ")
		came, err := time.Parse(time.RFC3339Nano, at)
		if err != nil || came.Before(since) {
			continue
		}
		if stamped {
			text = at + " " + text
		}
		found = append(found, text+"\n")
	}
	if tail, err := strconv.Atoi(query.Get("tailLines")); err == nil && tail < len(found) {
		found = found[len(found)-tail:]
	}
	_, err = io.WriteString(to, strings.Join(found, ""))
	if err != nil || query.Get("follow") != "true" {
		return err
	}
	followLog(to, file, stamped, request.Context().Done())
	return nil
}

// followLog writes what is added to the file, until whoever reads goes. (A kubelet also ends when
// the container does.)
func followLog(to http.ResponseWriter, file *os.File, stamped bool, gone <-chan struct{}) {
	added, begun := bufio.NewReader(file), ""
	for {
		piece, err := added.ReadString('\n')
		begun += piece
		if err == nil {
			at, text, _ := strings.Cut(begun, " ")
			if stamped {
				text = at + " " + text
			}
			if _, err := io.WriteString(to, text); err != nil {
				return
			}
			begun = ""
			continue
		}
		if err := http.NewResponseController(to).Flush(); err != nil {
			return
		}
		select {
		case <-gone:
			return
		case <-time.After(followEvery):
		}
	}
}
