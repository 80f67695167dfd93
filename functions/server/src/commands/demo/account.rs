//! The emulated AWS account: buckets, a queue, and the rule between them.

use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::ProvideCredentials;
use aws_sdk_s3::types::{BucketVersioningStatus, EventBridgeConfiguration, NotificationConfiguration, VersioningConfiguration};
use aws_sdk_sqs::types::QueueAttributeName;
use pipeline::s3::Bucket;
use pipeline::s3::aws::AwsBucket;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::endpoints::Endpoint;

/// What an emulator answers to a rule is short.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// The account, and the names that the demo uses in it.
#[derive(Clone)]
pub struct Account {
    endpoint: Endpoint,
    name: String,
    /// For S3.
    pub client: Client,
}

impl Account {
    /// An account in which `name` is free.
    pub async fn new(endpoint: &Endpoint, name: &str) -> Result<Account> {
        Ok(Account { endpoint: endpoint.clone(), name: name.to_owned(), client: endpoint.s3().await? })
    }

    /// The bucket that is protected.
    pub fn bucket(&self) -> Arc<dyn Bucket> {
        Arc::new(AwsBucket::new(self.client.clone(), &self.name))
    }

    /// The bucket that is restored to.
    pub fn target(&self) -> Arc<dyn Bucket> {
        Arc::new(AwsBucket::new(self.client.clone(), self.target_name()))
    }

    /// Its name.
    pub fn target_name(&self) -> String {
        format!("{}-restored", self.name)
    }

    /// Makes it.
    pub async fn create_target(&self) -> Result<()> {
        self.client.create_bucket().bucket(self.target_name()).send().await.context("creating the other bucket")?;
        Ok(())
    }

    /// Makes the bucket, its queue, and the way between them. Returns the queue's URL.
    pub async fn prepare(&self) -> Result<String> {
        let name = &self.name;
        self.client.create_bucket().bucket(name).send().await.context("creating the bucket")?;
        let versioning = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
        self.client
            .put_bucket_versioning()
            .bucket(name)
            .versioning_configuration(versioning)
            .send()
            .await
            .context("switching on versions")?;
        let events = NotificationConfiguration::builder().event_bridge_configuration(EventBridgeConfiguration::builder().build()).build();
        self.client
            .put_bucket_notification_configuration()
            .bucket(name)
            .notification_configuration(events)
            .send()
            .await
            .context("switching on events")?;
        let url = self.endpoint.url().context("an emulator has a URL")?;
        let sqs = self.endpoint.sqs(&format!("{url}/")).await?;
        let queue = sqs.create_queue().queue_name(name).send().await.context("creating the queue")?;
        let queue = queue.queue_url.context("the queue has no URL")?;
        let attributes = sqs
            .get_queue_attributes()
            .queue_url(&queue)
            .attribute_names(QueueAttributeName::QueueArn)
            .send()
            .await
            .context("asking for the queue's name")?;
        let arn = attributes.attributes.and_then(|mut all| all.remove(&QueueAttributeName::QueueArn)).context("the queue has no name")?;
        let pattern = json!({ "source": ["aws.s3"], "detail": { "bucket": { "name": [name] } } });
        self.event_bridge("PutRule", json!({ "Name": name, "EventPattern": pattern.to_string() })).await?;
        self.event_bridge("PutTargets", json!({ "Rule": name, "Targets": [{ "Id": "queue", "Arn": arn }] })).await?;
        // An emulator may name itself as others see it; we reach it where we were told to.
        let path = queue.splitn(4, '/').nth(3).unwrap_or_default();
        Ok(format!("{url}/{path}"))
    }

    /// One call of EventBridge. An emulator does not check signatures, so that two calls need no SDK of their own; from the
    /// credentials it learns only which account is meant.
    async fn event_bridge(&self, action: &str, body: Value) -> Result<()> {
        let authority = self.endpoint.url().and_then(|url| url.strip_prefix("http://")).context("an emulator is reached by plain HTTP")?;
        let sdk = self.endpoint.sdk().await?;
        let region = sdk.region().map_or("us-east-1", |region| region.as_ref()).to_owned();
        let provider = sdk.credentials_provider().context("there are no credentials")?;
        let credentials = provider.provide_credentials().await.context("there are no credentials")?;
        let (key, body) = (credentials.access_key_id(), body.to_string());
        let request = format!(
            "POST / HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\nContent-Type: application/x-amz-json-1.1\r\nX-Amz-Target: AWSEvents.{action}\r\n\
             Authorization: AWS4-HMAC-SHA256 Credential={key}/20260101/{region}/events/aws4_request, SignedHeaders=host, Signature=none\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut connection = TcpStream::connect(authority).await.with_context(|| format!("cannot reach {authority}"))?;
        connection.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        connection.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
        let answer = String::from_utf8_lossy(&answer);
        ensure!(answer.starts_with("HTTP/1.1 200"), "EventBridge did not take {action}: {}", answer.lines().next().unwrap_or_default());
        if let Some((_, body)) = answer.split_once("\r\n\r\n")
            && body.contains("\"FailedEntryCount\"")
            && !body.contains("\"FailedEntryCount\": 0")
            && !body.contains("\"FailedEntryCount\":0")
        {
            bail!("EventBridge did not take {action}: {body}");
        }
        Ok(())
    }
}
