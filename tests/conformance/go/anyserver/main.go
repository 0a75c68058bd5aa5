// Program anyserver answers whatever it is asked with one gRPC message, as soon as it has all of the request.
package main

import (
	"flag"
	"io"
	"log"
	"net/http"
)

var message = append([]byte{0, 0, 0, 0, 64}, make([]byte, 64)...)

func main() {
	address := flag.String("address", "127.0.0.1:0", "where to listen")
	flag.Parse()
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	server := http.Server{Addr: *address, Protocols: protocols, Handler: http.HandlerFunc(answer)}
	log.Fatal(server.ListenAndServe())
}

func answer(response http.ResponseWriter, request *http.Request) {
	if _, err := io.Copy(io.Discard, request.Body); err != nil {
		return
	}
	response.Header().Set("Content-Type", "application/grpc")
	response.Header().Set("Trailer", "Grpc-Status")
	// The client may be gone; there is nobody to tell.
	_, _ = response.Write(message)
	response.Header().Set("Grpc-Status", "0")
}
