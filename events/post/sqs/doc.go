// Package sqs sends facts to a queue of Amazon SQS, each as the body of one
// message in structured form (contract: events, section 5). It is where facts
// wait that a router did not take: the function that the queue invokes posts
// them to the routers' ingresses until they are taken, and what is never taken goes
// to the queue's dead letters.
//
//	q, err := sqs.New(sqs.Config{Name: name, URL: "https://sqs.eu-central-1.amazonaws.com/123456789012/notices", Log: log})
//	defer q.Close()
//	err = q.Post(ctx, facts)
package sqs
