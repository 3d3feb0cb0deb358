// A broadcast with Go's standard library: a goroutine and a channel for each client, as guides for Go show it.
package main

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"sync"
)

type hub struct {
	mutex   sync.RWMutex
	clients map[chan string]struct{}
}

func (hub *hub) join() chan string {
	client := make(chan string, 10)
	hub.mutex.Lock()
	hub.clients[client] = struct{}{}
	hub.mutex.Unlock()
	return client
}

func (hub *hub) leave(client chan string) {
	hub.mutex.Lock()
	delete(hub.clients, client)
	hub.mutex.Unlock()
}

// events is the stream of one client.
func (hub *hub) events(writer http.ResponseWriter, request *http.Request) {
	flusher, ok := writer.(http.Flusher)
	if !ok {
		http.Error(writer, "streaming is not supported", http.StatusInternalServerError)
		return
	}
	writer.Header().Set("Content-Type", "text/event-stream")
	writer.Header().Set("Cache-Control", "no-cache")
	client := hub.join()
	defer hub.leave(client)
	flusher.Flush()
	for {
		select {
		case <-request.Context().Done():
			return
		case block := <-client:
			if _, err := io.WriteString(writer, block); err != nil {
				return
			}
			flusher.Flush()
		}
	}
}

// publish sends the body to all clients. It waits for a slow one, so that no event is lost.
func (hub *hub) publish(writer http.ResponseWriter, request *http.Request) {
	data, err := io.ReadAll(request.Body)
	if err != nil {
		http.Error(writer, err.Error(), http.StatusBadRequest)
		return
	}
	block := fmt.Sprintf("data: %s\n\n", data)
	hub.mutex.RLock()
	for client := range hub.clients {
		client <- block
	}
	hub.mutex.RUnlock()
	writer.WriteHeader(http.StatusNoContent)
}

func main() {
	hub := &hub{clients: make(map[chan string]struct{})}
	http.HandleFunc("/events", hub.events)
	http.HandleFunc("/publish", hub.publish)
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Args[1], nil))
}
