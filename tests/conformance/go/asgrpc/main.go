// Program asgrpc stands between an HTTP/2 client and a gateway, and adds gRPC's content type to every request, so
// that requests of a client that knows nothing of gRPC are routed. All other bytes pass as they are, broken ones too.
package main

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"flag"
	"io"
	"log"
	"net"
)

const (
	preface       = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	headLen       = 9
	typeHeaders   = 1
	typeContinued = 9
	endHeaders    = 4
	padded        = 8
)

// contentType is an HPACK literal without indexing under the static name 31: it changes no table.
var contentType = append([]byte{0x0f, 0x10, 0x10}, "application/grpc"...)

func main() {
	address := flag.String("address", "127.0.0.1:0", "where to listen")
	gateway := flag.String("gateway", "", "where to connect")
	useTLS := flag.Bool("tls", false, "speak TLS to the gateway")
	flag.Parse()
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		log.Fatalf("listening on %s: %v", *address, err)
	}
	for {
		client, err := listener.Accept()
		if err != nil {
			log.Fatalf("accepting on %s: %v", *address, err)
		}
		go relay(client, *gateway, *useTLS)
	}
}

func dial(gateway string, useTLS bool) (net.Conn, error) {
	if useTLS {
		// What is looked at here is HTTP/2; who the gateway is, others look at.
		return tls.Dial("tcp", gateway, &tls.Config{NextProtos: []string{"h2"}, InsecureSkipVerify: true})
	}
	return net.Dial("tcp", gateway)
}

func relay(client net.Conn, gateway string, useTLS bool) {
	defer client.Close()
	server, err := dial(gateway, useTLS)
	if err != nil {
		log.Printf("connecting to %s: %v", gateway, err)
		return
	}
	defer server.Close()
	go func() {
		// Its end is the end of both; why it came is the client's business.
		_, _ = io.Copy(client, server)
		client.Close()
	}()
	_ = forward(server, bufio.NewReader(client))
}

// forward passes the client's bytes on until they end.
func forward(gateway io.Writer, client *bufio.Reader) error {
	start, err := client.Peek(len(preface))
	if err != nil || string(start) != preface {
		_, err = io.Copy(gateway, client)
		return err
	}
	if _, err := io.CopyN(gateway, client, int64(len(preface))); err != nil {
		return err
	}
	newest := uint32(0)
	opening := false
	for {
		frame, err := readFrame(client)
		if err != nil {
			return err
		}
		stream := binary.BigEndian.Uint32(frame[5:headLen])
		if frame[3] == typeHeaders {
			opening = stream > newest
			newest = max(stream, newest)
		}
		ends := frame[3] == typeHeaders || frame[3] == typeContinued
		if ends && opening && frame[4]&endHeaders != 0 {
			frame = withContentType(frame)
			opening = false
		}
		if _, err := gateway.Write(frame); err != nil {
			return err
		}
	}
}

func readFrame(client *bufio.Reader) ([]byte, error) {
	head, err := client.Peek(headLen)
	if err != nil {
		return nil, err
	}
	frame := make([]byte, headLen+length(head))
	_, err = io.ReadFull(client, frame)
	return frame, err
}

func length(head []byte) int {
	return int(head[0])<<16 | int(head[1])<<8 | int(head[2])
}

// withContentType adds the field at the end of the block, before padding.
func withContentType(frame []byte) []byte {
	at := len(frame)
	if frame[3] == typeHeaders && frame[4]&padded != 0 && at > headLen {
		at = max(headLen+1, at-int(frame[headLen]))
	}
	longer := append(append(append([]byte{}, frame[:at]...), contentType...), frame[at:]...)
	size := len(longer) - headLen
	longer[0], longer[1], longer[2] = byte(size>>16), byte(size>>8), byte(size)
	return longer
}
