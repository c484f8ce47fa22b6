// A registry with the referrers API: go-containerregistry's. It listens on a free loopback port, keeps blobs in the
// folder that its argument names and manifests in memory, and writes a line for each request that it has answered:
// method, path with query, status.
package main

import (
	"io"
	"log"
	"net"
	"net/http"
	"os"

	"github.com/google/go-containerregistry/pkg/registry"
)

// An answer that remembers its status.
type answer struct {
	http.ResponseWriter
	status int
}

func (a *answer) WriteHeader(status int) {
	a.status = status
	a.ResponseWriter.WriteHeader(status)
}

func main() {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	// The handler that keeps blobs in memory holds its lock while a blob comes in, and so keeps others from being read.
	handler := registry.New(
		registry.WithReferrersSupport(true),
		registry.WithBlobHandler(registry.NewDiskBlobHandler(os.Args[1])),
		registry.Logger(log.New(io.Discard, "", 0)))
	requests := log.New(os.Stdout, "", 0)
	log.Fatal(http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := &answer{w, http.StatusOK}
		handler.ServeHTTP(answer, r)
		requests.Printf("%s %s %d", r.Method, r.URL.RequestURI(), answer.status)
	})))
}
