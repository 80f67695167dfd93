//! Keeps what the messages of a queue tell of S3 buckets, and says which of them must come again.

use aws_lambda_events::sqs::{SqsBatchResponse, SqsEvent};
use lambda::{Call, counts, queues};

#[tokio::main]
async fn main() -> Result<(), lambda_runtime::Error> {
    lambda::serve(|Call { functions, event, .. }: Call<SqsEvent>| async move {
        let mut answer = SqsBatchResponse::default();
        for (queue, mut received) in queues::by_queue(event) {
            let captured = functions.capture(&queue, std::mem::take(&mut received.messages)).await?;
            counts::write("capture-s3", functions.now(), &queues::counts(&captured));
            functions.give_back(&queue, &received.handles_of(&captured.again)).await;
            answer.batch_item_failures.extend(captured.again.into_iter().map(queues::failure));
        }
        Ok(answer)
    })
    .await
}
