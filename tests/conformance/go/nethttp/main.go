// Program nethttp makes a unary gRPC call with nothing but net/http, and prints what came back as JSON.
package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"flag"
	"io"
	"log"
	"net/http"
	"os"
	"time"
)

const (
	deadline = 10 * time.Second
	// A message comes behind a byte for compression and four for its length.
	prefixLen = 5
)

type answer struct {
	Proto   string      `json:"proto"`
	Status  int         `json:"status"`
	Header  http.Header `json:"header"`
	Trailer http.Header `json:"trailer"`
	Body    []byte      `json:"body"`
}

func main() {
	url := flag.String("url", "", "of the method")
	authorities := flag.String("ca", "", "PEM file of the authority, for https")
	contentType := flag.String("content-type", "application/grpc", "of the request; empty for none")
	size := flag.Int("size", 0, "bytes of the message")
	flag.Parse()
	got, err := call(*url, *contentType, *authorities, *size)
	if err != nil {
		log.Fatalf("calling %s: %v", *url, err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(got); err != nil {
		log.Fatal(err)
	}
}

func call(url, contentType, authorities string, size int) (*answer, error) {
	transport, err := newTransport(authorities)
	if err != nil {
		return nil, err
	}
	message := make([]byte, prefixLen+size)
	binary.BigEndian.PutUint32(message[1:], uint32(size))
	request, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(message))
	if err != nil {
		return nil, err
	}
	if contentType != "" {
		request.Header.Set("Content-Type", contentType)
	}
	request.Header.Set("Te", "trailers")
	client := http.Client{Transport: transport, Timeout: deadline}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	return &answer{response.Proto, response.StatusCode, response.Header, response.Trailer, body}, nil
}

// newTransport speaks HTTP/2 only: by ALPN over TLS, with prior knowledge in plain text.
func newTransport(authorities string) (*http.Transport, error) {
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: protocols}
	if authorities == "" {
		return transport, nil
	}
	pem, err := os.ReadFile(authorities)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	transport.TLSClientConfig = &tls.Config{RootCAs: pool}
	return transport, nil
}
